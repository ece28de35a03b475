// The clients of the application that the chat API comes from, as their authors wrote them. They
// run in node and in a browser.

// ask is the page that polls. It knows only completed and failed.
async function ask(base, query, conversation, started) {
  const answer = await fetch(base + '/api/chat', {
    method: 'POST',
    headers: { 'Content-Type': 'application/json' },
    body: JSON.stringify({ query, conversation_id: conversation }),
  })
  const task = await answer.json()
  if (answer.status === 503) return 'full: ' + typeof task.error
  if (!answer.ok) throw new Error(task.error)
  if (started) await started(task.task_id)
  for (;;) {
    const status = await (await fetch(base + '/api/chat/status/' + task.task_id)).json()
    if (status.status === 'completed') return status.result.answer
    if (status.status === 'failed') return 'failed'
    await new Promise(resolve => setTimeout(resolve, 2000))
  }
}

async function cancel(base, task) {
  const answer = await fetch(base + '/api/chat/cancel/' + task, { method: 'POST' })
  return answer.status + ' ' + (await answer.json()).status
}

// talk is the page with a socket. It knows only progress and chat_response.
function talk(base, query, conversation) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(base.replace('http', 'ws') + '/ws')
    let percent = 0
    socket.onopen = () => socket.send(JSON.stringify({ type: 'chat_query', query, conversation_id: conversation }))
    socket.onerror = () => reject(new Error('the socket failed'))
    socket.onmessage = event => {
      const message = JSON.parse(event.data)
      switch (message.type) {
        case 'progress':
          percent = message.percent
          break
        case 'chat_response':
          socket.close()
          resolve(message.answer + ' at ' + percent)
      }
    }
  })
}

async function run(base, who) {
  const said = []
  const say = (what, result) => said.push(what + ': ' + result)
  const conversation = 'conv of ' + who + '/1'

  say('ask', await ask(base, 'hello', conversation))
  say('ask again', await ask(base, 'and again', conversation))
  say('other', await ask(base, 'hello', conversation + '2'))
  if (typeof WebSocket !== 'undefined') say('socket', await talk(base, 'a third time', conversation))
  else say('socket', 'none here')

  const list = await (await fetch(base + '/api/conversations')).json()
  const mine = list.conversations.filter(c => c.id.startsWith(conversation))
  say('list', mine.map(c => c.id.slice(conversation.length)).join() + ' ' + !isNaN(new Date(mine[0].last_message_at)))
  const one = await (await fetch(base + '/api/conversations/' + encodeURIComponent(conversation))).json()
  say('messages', one.messages.map(m => m.role).join())

  let cancelled
  say('slow', await ask(base, 'slow', conversation, async task => { cancelled = await cancel(base, task) }))
  say('cancel', cancelled)
  say('refused', await ask(base, 'bad', conversation))

  const waiting = []
  let full
  for (let i = 0; !full && i < 20; i++) {
    const asked = await new Promise(resolve => {
      ask(base, 'slow', conversation + 'full' + i, resolve).then(resolve)
    })
    if (asked.startsWith('full')) full = asked
    else waiting.push(asked)
  }
  say('too many', full)
  for (const task of waiting) await cancel(base, task)

  const beat = await fetch(base + '/api/heartbeat', { method: 'POST', body: JSON.stringify({ client: who }) })
  say('heartbeat', beat.status)
  return said.join('\n')
}
