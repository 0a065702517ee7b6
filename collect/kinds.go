package collect

import "fmt"

// Kind is one kind of collector, as the configuration names it.
type Kind struct {
	Name string // the word in "type:"
	Doc  string // one line

	// Settings returns a pointer to a settings struct with its defaults set.
	Settings func() any
	// New makes a collector from what Settings returned, filled in and checked. It opens nothing and starts nothing.
	New func(env Env, settings any) (Collector, error)
}

// Kinds returns all kinds. A new kind is one file and one row here.
func Kinds() []Kind {
	return []Kind{
		{
			Name:     "file",
			Doc:      "Follows files through rotation: CSV, JSON lines, plain lines.",
			Settings: func() any { return NewFileSettings() },
			New:      build(NewFile),
		},
		{
			Name:     "syslog",
			Doc:      "Listens for syslog over UDP and TCP.",
			Settings: func() any { return NewSyslogSettings() },
			New:      build(NewSyslog),
		},
	}
}

// build gives a constructor the type that Kind.New has.
func build[S any, C Collector](make func(Env, *S) (C, error)) func(Env, any) (Collector, error) {
	return func(env Env, settings any) (Collector, error) {
		s, ok := settings.(*S)
		if !ok {
			return nil, fmt.Errorf("BUG: settings of type %T", settings)
		}
		c, err := make(env, s)
		if err != nil {
			return nil, err
		}
		return c, nil
	}
}
