package config

import (
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"

	"gopkg.in/yaml.v3"
)

// words checks oneof and schemes. from names the references that the value came from, or is empty.
func (d *decoder) words(n *yaml.Node, v reflect.Value, r rules, at place, from string) bool {
	what, word, valid := "value", "", r.oneof
	if u, ok := v.Interface().(URL); ok {
		what, word, valid = "scheme", u.Scheme, r.schemes
	} else if v.Kind() == reflect.String {
		word = v.String()
	}
	switch {
	case len(valid) == 0 || slices.Contains(valid, word):
		return true
	case from != "":
		d.report(n, at, fmt.Sprintf("the %s from %s is not %s", what, from, orList(valid)))
	case what == "scheme":
		d.report(n, at, fmt.Sprintf("the scheme %s is not for this key: use %s", quote(word), orList(valid)))
	default:
		d.report(n, at, unknown(what, word, valid))
	}
	return false
}

// bounds checks min and max: of the value for numbers, sizes and durations, of the length for all others.
func (d *decoder) bounds(n *yaml.Node, v reflect.Value, r rules, at place, from string) bool {
	if r.min == "" && r.max == "" {
		return true
	}
	var have int64
	unit := ""
	switch {
	case v.CanInt():
		have = v.Int()
	case v.CanUint():
		have = int64(min(v.Uint(), math.MaxInt64))
	case v.Kind() == reflect.String:
		have, unit = int64(v.Len()), " bytes long"
	case v.Kind() == reflect.Slice || v.Kind() == reflect.Map:
		have, unit = int64(v.Len()), " entries long"
	default:
		panic(fmt.Sprintf("BUG: %s: min and max on a %v", at.path, v.Type()))
	}
	what := ""
	if from != "" {
		what = "the value from " + from + " "
	}
	switch {
	case r.min != "" && have < bound(r.min, v):
		if unit != "" && bound(r.min, v) == 1 {
			d.report(n, at, what+"must not be empty")
			return false
		}
		d.report(n, at, what+"must be at least "+r.min+unit)
	case r.max != "" && have > bound(r.max, v):
		d.report(n, at, what+"must be at most "+r.max+unit)
	default:
		return true
	}
	return false
}

// bound reads a bound from a tag as v's type reads values.
func bound(text string, v reflect.Value) int64 {
	var err error
	var limit int64
	switch v.Interface().(type) {
	case Bytes:
		var b Bytes
		err = b.UnmarshalText([]byte(text))
		limit = int64(b)
	case Duration:
		var d Duration
		err = d.UnmarshalText([]byte(text))
		limit = int64(d)
	default:
		limit, err = strconv.ParseInt(text, 10, 64)
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: bound %q in a tag of a %v: %v", text, v.Type(), err))
	}
	return limit
}
