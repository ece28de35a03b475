package openapi

import "strings"

// schemaView is the data of a schema: its members, its alternatives, or its type.
type schemaView struct {
	Name, Text string
	Type       []part
	Bounds     string
	Rows       []row
	Either     []schemaView
	Example    string
}

// row is a member of an object, or a parameter.
type row struct {
	Name, Where, Text string // Where is only set for a parameter
	Mark              string // "required" or "optional"; only the rarer of the two is shown
	Type              []part
	Bounds            string
}

// part is a piece of a type's name. With a Ref it links to that schema.
type part struct{ Text, Ref string }

const schemaPrefix = "#/components/schemas/"

// newSchemaView returns the data of a schema; nil where s is missing. Without a name it takes
// the name in the reference.
func newSchemaView(doc tree, name string, s tree) *schemaView {
	if s.node == nil {
		return nil
	}
	if name == "" {
		name = strings.TrimPrefix(s.ref(), schemaPrefix)
	}
	s = doc.resolve(s)
	v := &schemaView{Name: name, Text: s.at("description").text(), Rows: memberRows(doc, "", s), Bounds: bounds(s)}
	for _, either := range s.at("oneOf").items() {
		if either.at("properties").node != nil {
			v.Either = append(v.Either, *newSchemaView(doc, "", either))
		}
	}
	if len(v.Rows)+len(v.Either) == 0 {
		v.Type = typeParts(doc, s)
	}
	if all := s.at("examples").items(); len(all) > 0 {
		v.Example = indentJSON(all[0])
	}
	return v
}

// memberRows returns the members of an object, and those of the unnamed objects inside it.
func memberRows(doc tree, within string, s tree) []row {
	required := map[string]bool{}
	for _, name := range s.at("required").items() {
		required[name.text()] = true
	}
	var all []row
	members := s.at("properties").pairs()
	for _, p := range members {
		r := newRow(doc, within+p.key, p.value)
		switch mostRequired := 2*len(required) > len(members); {
		case mostRequired && !required[p.key]:
			r.Mark = "optional"
		case !mostRequired && required[p.key]:
			r.Mark = "required"
		}
		all = append(all, r)
		inner := p.value
		if items := inner.at("items"); items.node != nil {
			inner = items
		}
		for _, either := range inner.at("oneOf").items() {
			all = append(all, memberRows(doc, r.Name+".", either)...)
		}
		all = append(all, memberRows(doc, r.Name+".", inner)...)
	}
	return all
}

func newRow(doc tree, name string, s tree) row {
	r := row{Name: name, Text: s.at("description").text(), Type: typeParts(doc, s), Bounds: bounds(s)}
	if there := doc.resolve(s); r.Text == "" && len(memberRows(doc, "", there)) == 0 {
		r.Text = there.at("description").text()
	}
	return r
}

// typeParts returns the name of a schema's type, in pieces.
func typeParts(doc, s tree) []part {
	switch kind := s.at("type"); {
	case s.node == nil:
		return nil
	case s.ref() != "":
		name := strings.TrimPrefix(s.ref(), schemaPrefix)
		return []part{{name, name}}
	case s.at("const").node != nil:
		return []part{{Text: string(s.at("const").appendJSON(nil))}}
	case s.at("enum").node != nil:
		return joinTexts(s.at("enum").items(), " · ")
	case s.at("oneOf").node != nil:
		return alternatives(doc, s.at("oneOf").items())
	case s.at("anyOf").node != nil && kind.node == nil:
		return alternatives(doc, s.at("anyOf").items())
	case kind.text() == "array":
		return append([]part{{Text: "list of "}}, typeParts(doc, s.at("items"))...)
	case kind.text() != "":
		return []part{{Text: kind.text()}}
	case kind.node != nil:
		return joinTexts(kind.items(), " or ")
	default:
		return []part{{Text: "any"}}
	}
}

func joinTexts(all []tree, between string) []part {
	var texts []string
	for _, w := range all {
		texts = append(texts, w.text())
	}
	return []part{{Text: strings.Join(texts, between)}}
}

func alternatives(doc tree, all []tree) (parts []part) {
	for i, s := range all {
		if i > 0 {
			parts = append(parts, part{Text: " or "})
		}
		parts = append(parts, typeParts(doc, s)...)
	}
	return parts
}

// bounds describes the limits and the default of a value.
func bounds(s tree) string {
	var all []string
	add := func(before, key string) {
		if text := s.at(key).text(); text != "" {
			all = append(all, before+text)
		}
	}
	low, high := s.at("minimum").text(), s.at("maximum").text()
	switch {
	case low != "" && high != "":
		all = append(all, low+" to "+high)
	case low != "" && low != "0":
		all = append(all, "at least "+low)
	}
	add("at most ", "maxLength")
	add("at most ", "maxItems")
	add("usually ", "default")
	return strings.Join(all, ", ")
}
