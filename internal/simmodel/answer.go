package simmodel

import (
	"encoding/json"
	"fmt"
	"strings"
)

// message is one message of a conversation. Its content is a string, or parts of
// which some are text.
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

func (m message) words() int { return len(strings.Fields(m.text())) }

// answer says something about the last question, and nothing that is not true.
func answer(messages []message) string {
	return fmt.Sprintf(`%s

This answer comes from the simulated model that is built into Meanwhile. It understands nothing; it repeats the question to show that it arrived. %s

The words come one at a time, the way a large model says them. If you read this through Meanwhile, each one was on disk before you saw it. So you can close this window in the middle of a sentence and come back later: the job goes on, and you will read all of it. That is also so if the server is stopped and started again in between.

To have real answers, name a model under "models" in the configuration file. Any server that speaks the chat API of OpenAI will do.`,
		restated(messages), before(messages))
}

func restated(messages []message) string {
	const most = 300 // characters
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role != "user" {
			continue
		}
		question := []rune(strings.Join(strings.Fields(messages[i].text()), " "))
		if len(question) > most {
			question = append(question[:most], '…')
		}
		if len(question) > 0 {
			return fmt.Sprintf("You said: “%s”", string(question))
		}
	}
	return "You said nothing that could be repeated."
}

func before(messages []message) string {
	switch n := len(messages) - 1; n {
	case 0:
		return "It is the first message of this conversation."
	case 1:
		return "One message of this conversation came before it."
	default:
		return fmt.Sprintf("%d messages of this conversation came before it.", n)
	}
}

// tokens cuts a text into words, each with the white space after it. If so many
// are wanted, the text is cut short or begun again; 0 is as many as it has.
func tokens(text string, wanted int) []string {
	all := strings.SplitAfter(text, " ")
	if wanted == 0 {
		return all
	}
	said := make([]string, wanted)
	for i := range said {
		said[i] = all[i%len(all)]
		if i > 0 && i%len(all) == 0 {
			said[i] = "\n\n" + said[i]
		}
	}
	return said
}

func joined(tokens []string) string { return strings.Join(tokens, "") }
