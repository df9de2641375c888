package numbering

import (
	"cmp"
	"errors"
	"fmt"
	"regexp/syntax"
	"slices"
	"strconv"
)

// automaton tells which of several patterns match a number, in one step a digit, where package regexp takes some
// microseconds a pattern. It is read-only once built. The zero value matches nothing.
type automaton struct {
	// next gives by state and digit the state that follows. State 0 is where nothing matches any more.
	next [][10]uint16
	// matched gives by state the patterns that match what was read so far, a bit each, in the order they were given.
	matched []uint16
}

const (
	stuck   = 0
	initial = 1

	maxPatterns = 16
	maxStates   = 1 << 14 // the largest plan, Brazil's, needs some 2 000
)

var errPattern = errors.New("not a pattern of digits that an automaton reads")

// newAutomaton builds the automaton of at most 16 regular expressions, each of which must match a number from its first
// digit to its last. An error means that there is none, for there is something in a pattern besides digits.
func newAutomaton(patterns ...string) (*automaton, error) {
	if len(patterns) > maxPatterns {
		return nil, fmt.Errorf("%w: %d patterns", errPattern, len(patterns))
	}
	b := builder{states: map[string]uint16{}}
	for i, p := range patterns {
		if err := b.add(i, p); err != nil {
			return nil, fmt.Errorf("%w: %w", errPattern, err)
		}
	}
	return b.build()
}

// read returns what was matched after the last digit of a number, and nothing for what is no number.
func (a *automaton) read(number string) (matched uint16) {
	if len(a.next) == 0 {
		return 0
	}
	state := uint16(initial)
	for i := range len(number) {
		if state = a.step(state, number[i]); state == stuck {
			return 0
		}
	}
	return a.matched[state]
}

// begins tells whether a pattern matches the beginning of a number.
func (a *automaton) begins(number string) bool {
	if len(a.next) == 0 {
		return false
	}
	state := uint16(initial)
	for i := 0; a.matched[state] == 0; i++ {
		if i == len(number) {
			return false
		}
		state = a.step(state, number[i])
	}
	return true
}

func (a *automaton) step(state uint16, digit byte) uint16 {
	if digit -= '0'; digit > 9 {
		return stuck
	}
	return a.next[state][digit]
}

// builder makes one automaton of the programs that package regexp would run, by the subset construction: a state is the
// set of places where they may be.
type builder struct {
	programs []*syntax.Prog
	states   map[string]uint16 // by the places, as places.key makes them one text
	pending  []places
	out      automaton
}

// place is an instruction of a program.
type place struct{ program, at int }

type places []place

// key is the set as a text. It sorts the set.
func (p places) key() string {
	slices.SortFunc(p, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.program, b.program), cmp.Compare(a.at, b.at))
	})
	var b []byte
	for _, x := range p {
		b = append(strconv.AppendInt(append(strconv.AppendInt(b, int64(x.program), 10), ':'), int64(x.at), 10), ' ')
	}
	return string(b)
}

// add takes the pattern of a number.
func (b *builder) add(number int, pattern string) error {
	parsed, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return err
	}
	for _, instruction := range program.Inst {
		if instruction.Op == syntax.InstEmptyWidth {
			return fmt.Errorf("pattern %d has an anchor", number)
		}
	}
	b.programs = append(b.programs, program)
	return nil
}

func (b *builder) build() (*automaton, error) {
	b.stateOf(nil) // stuck
	var start places
	for i, p := range b.programs {
		start = b.reach(start, place{i, p.Start})
	}
	b.stateOf(start)
	for done := 0; done < len(b.pending); done++ {
		if len(b.pending) > maxStates {
			return nil, fmt.Errorf("%w: too many states", errPattern)
		}
		for digit := range 10 {
			b.out.next[done][digit] = b.stateOf(b.after(b.pending[done], rune('0'+digit)))
		}
	}
	return &b.out, nil
}

// stateOf returns the state of a set of places, a new one if nobody has been there.
func (b *builder) stateOf(set places) uint16 {
	key := set.key()
	if state, known := b.states[key]; known {
		return state
	}
	state := uint16(len(b.pending)) //nolint:gosec // build stops at maxStates
	b.states[key], b.pending = state, append(b.pending, set)
	b.out.next = append(b.out.next, [10]uint16{})
	b.out.matched = append(b.out.matched, b.matchedAt(set))
	return state
}

func (b *builder) matchedAt(set places) (matched uint16) {
	for _, p := range set {
		if b.programs[p.program].Inst[p.at].Op == syntax.InstMatch {
			matched |= 1 << p.program
		}
	}
	return matched
}

// after returns where the programs may be once they have read a digit.
func (b *builder) after(set places, digit rune) (then places) {
	for _, p := range set {
		instruction := &b.programs[p.program].Inst[p.at]
		switch instruction.Op {
		case syntax.InstRune, syntax.InstRune1, syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			if instruction.MatchRune(digit) {
				then = b.reach(then, place{p.program, int(instruction.Out)})
			}
		}
	}
	return then
}

// reach adds the instructions that read or match and that a program comes to from a place without reading.
func (b *builder) reach(set places, p place) places {
	instruction := &b.programs[p.program].Inst[p.at]
	switch instruction.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		return b.reach(b.reach(set, place{p.program, int(instruction.Out)}), place{p.program, int(instruction.Arg)})
	case syntax.InstCapture, syntax.InstNop:
		return b.reach(set, place{p.program, int(instruction.Out)})
	case syntax.InstFail:
		return set
	}
	if slices.Contains(set, p) {
		return set
	}
	return append(set, p)
}
