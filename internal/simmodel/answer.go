package simmodel

import (
	"encoding/json"
	"fmt"
	"strings"
)

// message is one message of a conversation. Its content is a string or a list of parts, such as
// text parts.
type message struct {
	Role    string          `json:"role"`
	Content json.RawMessage `json:"content"`
}

func (m message) text() string {
	var whole string
	if json.Unmarshal(m.Content, &whole) == nil {
		return whole
	}
	var parts []struct {
		Text string `json:"text"`
	}
	_ = json.Unmarshal(m.Content, &parts)
	var texts []string
	for _, p := range parts {
		if p.Text != "" {
			texts = append(texts, p.Text)
		}
	}
	return strings.Join(texts, " ")
}

func (m message) wordCount() int { return len(strings.Fields(m.text())) }

// answer returns a text about the last question. All its statements are true.
func answer(messages []message) string {
	return fmt.Sprintf(`%s

This answer comes from the simulated model that is built into Meanwhile. It understands nothing; it repeats the question to show that it arrived. %s

The words come one at a time, the way a large model says them. If you read this through Meanwhile, each one was on disk before you saw it. So you can close this window in the middle of a sentence and come back later: the job goes on, and you will read all of it. That is also so if the server is stopped and started again in between.

To have real answers, name a model under "models" in the configuration file. Any server that speaks the chat API of OpenAI will do.`,
		repeatQuestion(messages), describeHistory(messages))
}

func repeatQuestion(messages []message) string {
	const maxRunes = 300
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role != "user" {
			continue
		}
		question := []rune(strings.Join(strings.Fields(messages[i].text()), " "))
		if len(question) > maxRunes {
			question = append(question[:maxRunes], '…')
		}
		if len(question) > 0 {
			return fmt.Sprintf("You said: “%s”", string(question))
		}
	}
	return "You said nothing that could be repeated."
}

func describeHistory(messages []message) string {
	switch n := len(messages) - 1; n {
	case 0:
		return "It is the first message of this conversation."
	case 1:
		return "One message of this conversation came before it."
	default:
		return fmt.Sprintf("%d messages of this conversation came before it.", n)
	}
}

// splitTokens splits a text into words, each with the white space after it. It shortens or
// repeats the text so that it has count words; 0 keeps the text.
func splitTokens(text string, count int) []string {
	all := strings.SplitAfter(text, " ")
	if count == 0 {
		return all
	}
	tokens := make([]string, count)
	for i := range tokens {
		tokens[i] = all[i%len(all)]
		if i > 0 && i%len(all) == 0 {
			tokens[i] = "\n\n" + tokens[i]
		}
	}
	return tokens
}
