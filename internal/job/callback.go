package job

import "strings"

// CallbackQueue is the queue of deliveries: the jobs that send callbacks. The server makes it
// and its jobs itself; no request submits to it, and no configuration names it.
const CallbackQueue = "callbacks"

// MaxCallbackURL is the longest URL of a callback, in bytes.
const MaxCallbackURL = 2048

// Callback says where the end of a job is delivered.
type Callback struct {
	URL    string
	Events Events
	// SecretID is the id of the endpoint whose secret signs; "" for the default secret of the
	// tenant. A secret itself never stands in a job.
	SecretID string
}

// Events is a set of ways in which a job ends.
type Events uint8

// AllEvents is the set of all ways in which a job ends.
const AllEvents = 1<<(Expired-Succeeded+1) - 1

// eventDone is the name of AllEvents.
const eventDone = "done"

// EventNames lists the names of the events, without "done", which is all of them.
func EventNames() (names []string) {
	for s := Succeeded; s <= Expired; s++ {
		names = append(names, s.Event())
	}
	return names
}

// Event is the name of the end in this state, such as "job.succeeded".
func (s State) Event() string { return "job." + s.String() }

// ParseEvents returns the set with these names. "done" is all events, and so is an empty list.
func ParseEvents(names []string) (Events, error) {
	if len(names) == 0 {
		return AllEvents, nil
	}
	var set Events
	for _, name := range names {
		one, ok := parseEvents(name)
		if !ok {
			return 0, Errorf(Invalid, "there is no event %s; there are %s, and %s for all of them", Quote(name), strings.Join(EventNames(), ", "), eventDone)
		}
		set |= one
	}
	return set, nil
}

func parseEvents(name string) (Events, bool) {
	if name == eventDone {
		return AllEvents, true
	}
	end, ok := ParseEvent(name)
	return eventOf(end), ok
}

// ParseEvent returns the state in which a job ends with this event.
func ParseEvent(name string) (end State, ok bool) {
	for s := Succeeded; s <= Expired; s++ {
		if s.Event() == name {
			return s, true
		}
	}
	return 0, false
}

// eventOf is the set with the end in this state only.
func eventOf(s State) Events {
	if !s.Ended() {
		return 0
	}
	return 1 << (s - Succeeded)
}

// Has reports whether the end in this state is in the set. It is false for a state that is no
// end.
func (e Events) Has(s State) bool { return e&eventOf(s) != 0 }

// Names lists the names of the events in the set.
func (e Events) Names() []string {
	names := []string{}
	for s := Succeeded; s <= Expired; s++ {
		if e.Has(s) {
			names = append(names, s.Event())
		}
	}
	return names
}
