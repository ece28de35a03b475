<?php

// Places an order. The order and the job that sends its mail exist both or neither.
// PGHOST, PGDATABASE, PGUSER and so on say where the database is.

function placeOrder(PDO $db, string $item, bool $paid): string
{
    $db->beginTransaction();
    try {
        $order = $db->prepare('insert into orders (item) values (?) returning id');
        $order->execute([$item]);
        $body = ['input' => ['order' => (int) $order->fetchColumn()], 'key' => $item];
        $job = $db->prepare("insert into inbox (queue, body) values ('mail', ?) returning id");
        $job->execute([json_encode($body, JSON_THROW_ON_ERROR)]);
        if (!$paid) {
            throw new RuntimeException('the payment failed: there is no order, and no mail is sent');
        }
        $db->commit();
        return $job->fetchColumn(); // GET /v1/jobs/{job} follows it from now on
    } catch (Throwable $e) {
        $db->rollBack();
        throw $e;
    }
}

try {
    echo placeOrder(new PDO('pgsql:'), $argv[1], $argv[2] === 'paid'), "\n";
} catch (RuntimeException $e) {
    fwrite(STDERR, $e->getMessage() . "\n");
    exit(1);
}
