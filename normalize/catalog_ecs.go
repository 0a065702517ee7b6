package normalize

import (
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// ecsTypes are the values of event.type that Elastic Common Schema 9.4 expects with a value of event.category; only the
// categories that audit records have.
var ecsTypes = map[string]string{
	"authentication":      "start end info",
	"session":             "start end info",
	"iam":                 "admin change creation deletion group info user",
	"configuration":       "access change creation deletion info",
	"file":                "access change creation deletion info",
	"email":               "info",
	"malware":             "info",
	"network":             "access allowed connection denied end info protocol start",
	"process":             "access change end info start",
	"host":                "access change end info start",
	"api":                 "access admin allowed change creation deletion denied end info start user",
	"package":             "access change deletion info installation start",
	"web":                 "access error info",
	"database":            "access change info error",
	"intrusion_detection": "allowed denied info",
}

// ecs reads an event's categories and types. With several categories every type must be expected by one of them.
func (r *catalogReader) ecs(n *yaml.Node, e *Entry) {
	e.ECSCategory, e.ECSType = nil, nil
	r.mapping(n, "ecs", readers{"category": r.texts(&e.ECSCategory), "type": r.texts(&e.ECSType)})
	var allowed []string
	for _, category := range e.ECSCategory {
		types, ok := ecsTypes[category]
		if !ok {
			r.fail(n, "ECS has no event.category %q", category)
		}
		allowed = append(allowed, strings.Fields(types)...)
	}
	for _, word := range e.ECSType {
		if !slices.Contains(allowed, word) {
			r.fail(n, "ECS does not expect event.type %q with event.category %s", word, strings.Join(e.ECSCategory, ", "))
		}
	}
	if len(e.ECSCategory) == 0 || len(e.ECSType) == 0 {
		r.fail(n, "ecs needs at least one category and one type")
	} else {
		e.Category = e.ECSCategory[0]
	}
}
