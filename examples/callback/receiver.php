<?php // Receives callbacks: WEBHOOK_SECRET=whsec_… php -S 127.0.0.1:9000 receiver.php
$key = base64_decode(substr(getenv('WEBHOOK_SECRET'), strlen('whsec_')));
$body = file_get_contents('php://input');

function is_signed(string $key, string $body): bool
{
    $at = $_SERVER['HTTP_WEBHOOK_TIMESTAMP'] ?? '';
    if (!ctype_digit($at) || abs(time() - (int) $at) > 300) {
        return false;
    }
    $signed = ($_SERVER['HTTP_WEBHOOK_ID'] ?? '') . ".$at.$body";
    $want = 'v1,' . base64_encode(hash_hmac('sha256', $signed, $key, true));
    foreach (explode(' ', $_SERVER['HTTP_WEBHOOK_SIGNATURE'] ?? '') as $one) {
        if (hash_equals($want, $one)) {
            return true;
        }
    }
    return false;
}

if (!is_signed($key, $body)) {
    http_response_code(401);
    exit('the signature is wrong');
}
$event = json_decode($body);
error_log("{$event->type} {$event->data->id}"); // may come twice, with the same webhook-id
http_response_code(204);
