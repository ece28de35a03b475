package llm

import (
	"bytes"
	"encoding/json"
	"strings"
)

// Values that grow while deltas are merged. Scalars are kept as [json.RawMessage].
type (
	mergedObject map[string]any
	mergedList   struct {
		items   []any
		byIndex map[string]int // position of each item by its index
		byID    map[string]int // of tool calls, by their id
		last    int            // position of the tool call that grew last
	}
	mergedText struct {
		bytes.Buffer
		held  []byte // the beginning of a character, or of a surrogate pair
		shape shape  // of arguments, which are JSON
	}
)

// merge merges a piece of the member called name into the value old. Strings, objects and lists
// grow; scalars are replaced. It returns the new value, and what the piece adds to it in whole
// characters, in a form that encoding/json can write.
func merge(name string, old, piece any) (merged, added any) {
	switch piece := piece.(type) {
	case text:
		return mergeText(name, old, piece)
	case map[string]any:
		// Some servers send a call without the list around it.
		if name == "tool_calls" {
			return mergeList(name, old, []any{piece})
		}
		return mergeObject(old, piece)
	case []any:
		return mergeList(name, old, piece)
	case json.RawMessage:
		// Some servers write a token that looks like a number as one.
		switch name {
		case "content", "reasoning", "reasoning_content", "arguments":
			return mergeText(name, old, text(piece))
		}
		return piece, piece
	}
	return old, nil // a null in a delta changes nothing
}

// mergeText appends a piece to a string. Strings that identify something are replaced, because
// some servers repeat those in every piece.
func mergeText(name string, old any, piece text) (merged, added any) {
	// The content was a list so far. Its text goes on.
	if list, isList := old.(*mergedList); isList {
		if len(piece) == 0 {
			return old, nil
		}
		return mergeList(name, list, []any{textPart(piece)})
	}
	t, ok := old.(*mergedText)
	if !ok {
		t = &mergedText{}
	}
	switch name {
	case "role", "id", "type", "format":
		if len(piece) == 0 || bytes.Equal(piece, t.Bytes()) {
			return t, nil
		}
		t.Reset()
	// The name of a function may come in pieces, or as a whole with each piece.
	case "name":
		if t.Len() > 0 && bytes.HasPrefix(piece, t.Bytes()) {
			piece = piece[t.Len():]
		}
	}
	shown := t.add(piece)
	if name == "arguments" {
		t.shape.scan([]byte(shown))
	}
	return t, shown
}

// add appends a piece and returns the characters that are whole now.
func (t *mergedText) add(piece text) string {
	if len(t.held) > 0 {
		piece = append(t.held, piece...)
	}
	whole, held := wholeText(piece)
	t.held = held
	t.Write(whole)
	return string(whole)
}

// complete returns the text. What never became a character is replaced.
func (t *mergedText) complete() string {
	if len(t.held) > 0 {
		return t.String() + "\ufffd"
	}
	return t.String()
}

func textPart(t text) map[string]any { return map[string]any{"type": text("text"), "text": t} }

func mergeObject(old any, fields map[string]any) (merged, added any) {
	o, ok := old.(mergedObject)
	if !ok {
		o = mergedObject{}
	}
	for name, piece := range fields {
		value, shown := merge(name, o[name], piece)
		if value != nil {
			o[name] = value
		}
		if fields[name] = shown; shown == nil {
			delete(fields, name)
		}
	}
	return o, fields
}

func mergeList(name string, old any, items []any) (merged, added any) {
	l, ok := old.(*mergedList)
	if !ok {
		l = &mergedList{byIndex: make(map[string]int), byID: make(map[string]int)}
		// The content was a string so far.
		if t, isText := old.(*mergedText); isText && t.Len()+len(t.held) > 0 {
			part, _ := merge("", nil, textPart(append(bytes.Clone(t.Bytes()), t.held...)))
			l.items = append(l.items, part)
		}
	}
	touched := make(map[int]bool)
	for i, item := range items {
		at := len(l.items)
		fields, isObject := item.(map[string]any)
		switch {
		case isObject && name == "tool_calls":
			at = l.callAt(fields, touched)
			touched[at], l.last = true, at
		case isObject:
			at = l.itemAt(fields)
		}
		if at == len(l.items) {
			l.items = append(l.items, nil)
		}
		kind := scalarText(fields["type"])
		l.items[at], items[i] = merge("", l.items[at], item)
		switch {
		// The log has one form, whatever the server wrote.
		case isObject && name == "tool_calls":
			fields["index"] = at
		case kind != "":
			fields["type"] = kind
		}
	}
	return l, items
}

// itemAt returns the position of the item that a piece belongs to: the one with its index, or the
// last one if both are parts of a text; else a new one.
func (l *mergedList) itemAt(piece map[string]any) int {
	if index := scalarText(piece["index"]); index != "" {
		if at, known := l.byIndex[index]; known && l.isSameKind(at, piece) {
			return at
		}
		l.byIndex[index] = len(l.items)
		return len(l.items)
	}
	if len(l.items) == 0 || !isTextKind(scalarText(piece["type"])) {
		return len(l.items)
	}
	last, _ := l.items[len(l.items)-1].(mergedObject)
	if scalarText(last["type"]) == scalarText(piece["type"]) && last["index"] == nil {
		return len(l.items) - 1
	}
	return len(l.items)
}

// isSameKind reports whether an item and a piece may have the same type.
func (l *mergedList) isSameKind(at int, piece map[string]any) bool {
	item, _ := l.items[at].(mergedObject)
	have, more := scalarText(item["type"]), scalarText(piece["type"])
	return have == "" || more == "" || have == more
}

// isTextKind reports whether parts of this type are pieces of one text.
func isTextKind(kind string) bool {
	switch kind {
	case "text", "output_text", "thinking", "reasoning", "reasoning.text":
		return true
	}
	return false
}

// callAt returns the position of the tool call that a piece belongs to; len(l.items) for a new
// call. Servers number their calls in many ways, so this rule uses all that a piece says: a new
// id begins a call, a known id or index continues it, and without both the last call goes on.
func (l *mergedList) callAt(piece map[string]any, touched map[int]bool) (at int) {
	id, index := scalarText(piece["id"]), scalarText(piece["index"])
	defer func() {
		if id != "" {
			l.byID[id] = at
		}
		if index != "" {
			l.byIndex[index] = at
		}
	}()
	if at, known := l.byID[id]; known && id != "" {
		return at
	}
	at, known := l.byIndex[index]
	if index == "" {
		at, known = l.last, len(l.items) > 0
	}
	if !known {
		return len(l.items)
	}
	call, _ := l.items[at].(mergedObject)
	hasOtherID := id != "" && scalarText(call["id"]) != ""
	// A call begins with a name. Without one the id is another one for the same call, because
	// some servers invent an id for each piece.
	if function, _ := call["function"].(mergedObject); hasOtherID && index != "" && callName(piece) == "" && !completeArguments(function["arguments"]) {
		delete(piece, "id")
		return at
	}
	nextOfChunk := id == "" && index == "" && touched[at] && callName(piece) != ""
	if hasOtherID || nextOfChunk || beginsCall(call, piece) {
		return len(l.items)
	}
	return at
}

// beginsCall reports whether a piece with a name cannot continue a call, because the arguments of
// the call are complete.
func beginsCall(call mergedObject, piece map[string]any) bool {
	name := callName(piece)
	if name == "" {
		return false
	}
	function, _ := call["function"].(mergedObject)
	if !completeArguments(function["arguments"]) {
		return false
	}
	pieceFunction, _ := piece["function"].(map[string]any)
	more := pieceFunction["arguments"]
	_, isObject := more.(map[string]any)
	return isObject || name != scalarText(function["name"]) || strings.TrimSpace(scalarText(more)) != ""
}

func completeArguments(arguments any) bool {
	switch v := arguments.(type) {
	case mergedObject:
		return true
	case *mergedText:
		return bytes.HasPrefix(bytes.TrimLeft(v.Bytes(), " \t\r\n"), []byte("{")) && !v.shape.open()
	}
	return false
}

func callName(piece map[string]any) string {
	function, _ := piece["function"].(map[string]any)
	return scalarText(function["name"])
}

// scalarText returns a decoded or merged string or number; "" for anything else.
func scalarText(v any) string {
	switch v := v.(type) {
	case text:
		return string(v)
	case json.RawMessage:
		return string(v)
	case *mergedText:
		return v.complete()
	}
	return ""
}

// plainValue converts a merged value to maps, slices and strings for encoding/json.
func plainValue(v any) any {
	switch v := v.(type) {
	case mergedObject:
		fields := make(map[string]any, len(v))
		for name, value := range v {
			fields[name] = plainValue(value)
		}
		return fields
	case *mergedList:
		items := make([]any, len(v.items))
		for i, item := range v.items {
			items[i] = plainValue(item)
		}
		return items
	case *mergedText:
		return v.complete()
	}
	return v
}
