<?php
// A page whose PHP does nothing slow: it hands the question over and is free again.
// The browser follows the answer by itself, with nothing but the address it was given.
session_start();
$user = $_SESSION['user'] ??= bin2hex(random_bytes(8));
session_write_close();

function meanwhile(string $method, string $path, string $user, ?array $body = null): array
{
    $answer = @file_get_contents((getenv('MEANWHILE_URL') ?: 'http://127.0.0.1:8080') . $path, false,
        stream_context_create(['http' => [
            'method' => $method,
            'header' => ["X-User-ID: $user", 'Content-Type: application/json'],
            'content' => $body ? json_encode($body) : '',
            'ignore_errors' => true, // an answer that refuses says why
            'timeout' => 5,
        ]]));
    return $answer ? json_decode($answer, true) : ['detail' => 'Meanwhile does not answer.'];
}

if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    $messages = [['role' => 'user', 'content' => $_POST['question'] ?? '']];
    $job = meanwhile('POST', '/v1/jobs', $user, ['queue' => 'chat', 'input' => ['messages' => $messages]]);
    if (isset($job['id'])) { // it is on disk
        header("Location: ?job=$job[id]", true, 303);
        exit;
    }
} elseif (isset($_GET['job'])) {
    $job = meanwhile('GET', '/v1/jobs/' . rawurlencode($_GET['job']), $user);
}
?>
<!doctype html>
<meta charset="utf-8">
<title>Ask</title>
<form method="post"><input name="question" required autofocus> <button>Ask</button></form>
<?php if (isset($job)): ?>
<p id="answer" data-watch="<?= htmlspecialchars($job['urls']['watch'] ?? '') ?>"></p>
<p id="state"><?= htmlspecialchars($job['detail'] ?? $job['status']) ?></p>
<?php endif ?>
<script>
const answer = document.getElementById('answer'), state = document.getElementById('state')
if (answer?.dataset.watch) {
  const events = new EventSource(answer.dataset.watch)
  const on = (name, tell) => events.addEventListener(name, e => tell(JSON.parse(e.data)))
  on('snapshot', job => state.textContent = job.status)
  on('attempt', () => answer.textContent = '') // it is tried again: what was said is void
  on('output', entry => { if (entry.kind === 'text') answer.textContent += entry.data })
  on('done', job => { state.textContent = job.error?.message ?? job.status; events.close() })
  events.onerror = () => state.textContent =
    events.readyState === EventSource.CLOSED ? 'gone; reload the page' : 'offline; it goes on by itself'
}
</script>
