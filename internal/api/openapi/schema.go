package openapi

import "strings"

// schema is a schema as it is shown: by its members, by its alternatives, or as a type.
type schema struct {
	Name, Text string
	Type       []part
	Bounds     string
	Rows       []row
	Either     []schema
	Example    string
}

// row is a member of an object, or a parameter.
type row struct {
	Name, Where, Text string // Where is of a parameter
	Mark              string // required or optional, whichever is the exception
	Type              []part
	Bounds            string
}

// part is a piece of a type's name. With a Ref it leads to that schema.
type part struct{ Text, Ref string }

const schemasAt = "#/components/schemas/"

// schemaOf shows a schema under a name; nil where there is none.
func schemaOf(doc tree, name string, s tree) *schema {
	if s.node == nil {
		return nil
	}
	if name == "" {
		name = strings.TrimPrefix(s.ref(), schemasAt)
	}
	s = doc.follow(s)
	v := &schema{Name: name, Text: s.at("description").text(), Rows: rowsOf(doc, "", s), Bounds: boundsOf(s)}
	for _, either := range s.at("oneOf").items() {
		if either.at("properties").node != nil {
			v.Either = append(v.Either, *schemaOf(doc, "", either))
		}
	}
	if len(v.Rows)+len(v.Either) == 0 {
		v.Type = typeOf(doc, s)
	}
	if all := s.at("examples").items(); len(all) > 0 {
		v.Example = indented(all[0])
	}
	return v
}

// rowsOf lists the members of an object, with those of the objects inside it that have
// no name of their own.
func rowsOf(doc tree, within string, s tree) []row {
	required := map[string]bool{}
	for _, name := range s.at("required").items() {
		required[name.text()] = true
	}
	var all []row
	members := s.at("properties").pairs()
	for _, p := range members {
		r := rowOf(doc, within+p.key, p.value)
		switch most := 2*len(required) > len(members); {
		case most && !required[p.key]:
			r.Mark = "optional"
		case !most && required[p.key]:
			r.Mark = "required"
		}
		all = append(all, r)
		inner := p.value
		if items := inner.at("items"); items.node != nil {
			inner = items
		}
		for _, either := range inner.at("oneOf").items() {
			all = append(all, rowsOf(doc, r.Name+".", either)...)
		}
		all = append(all, rowsOf(doc, r.Name+".", inner)...)
	}
	return all
}

func rowOf(doc tree, name string, s tree) row {
	r := row{Name: name, Text: s.at("description").text(), Type: typeOf(doc, s), Bounds: boundsOf(s)}
	if there := doc.follow(s); r.Text == "" && len(rowsOf(doc, "", there)) == 0 {
		r.Text = there.at("description").text()
	}
	return r
}

// typeOf names a schema's type, in pieces.
func typeOf(doc, s tree) []part {
	switch kind := s.at("type"); {
	case s.node == nil:
		return nil
	case s.ref() != "":
		name := strings.TrimPrefix(s.ref(), schemasAt)
		return []part{{name, name}}
	case s.at("const").node != nil:
		return []part{{Text: string(s.at("const").appendJSON(nil))}}
	case s.at("enum").node != nil:
		return words(s.at("enum").items(), " · ")
	case s.at("oneOf").node != nil:
		return eitherOf(doc, s.at("oneOf").items())
	case s.at("anyOf").node != nil && kind.node == nil:
		return eitherOf(doc, s.at("anyOf").items())
	case kind.text() == "array":
		return append([]part{{Text: "list of "}}, typeOf(doc, s.at("items"))...)
	case kind.text() != "":
		return []part{{Text: kind.text()}}
	case kind.node != nil:
		return words(kind.items(), " or ")
	default:
		return []part{{Text: "any"}}
	}
}

func words(all []tree, between string) []part {
	var texts []string
	for _, w := range all {
		texts = append(texts, w.text())
	}
	return []part{{Text: strings.Join(texts, between)}}
}

func eitherOf(doc tree, all []tree) (parts []part) {
	for i, s := range all {
		if i > 0 {
			parts = append(parts, part{Text: " or "})
		}
		parts = append(parts, typeOf(doc, s)...)
	}
	return parts
}

// boundsOf says what a value is held to beside its type.
func boundsOf(s tree) string {
	var all []string
	say := func(before, key string) {
		if text := s.at(key).text(); text != "" {
			all = append(all, before+text)
		}
	}
	least, most := s.at("minimum").text(), s.at("maximum").text()
	switch {
	case least != "" && most != "":
		all = append(all, least+" to "+most)
	case least != "" && least != "0":
		all = append(all, "at least "+least)
	}
	say("at most ", "maxLength")
	say("at most ", "maxItems")
	say("usually ", "default")
	return strings.Join(all, ", ")
}
