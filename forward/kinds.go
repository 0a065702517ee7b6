package forward

// Kinds returns the kinds of destinations, in the order of the reference.
func Kinds() []Kind {
	return []Kind{
		{
			Name: "syslog", Doc: "Syslog messages over TCP or UDP.",
			Settings: func() any { return newSyslogSettings() }, New: newSyslog,
		},
		{
			Name: "file", Doc: "One event a line in a file that is rotated by size, or on standard output.",
			Settings: func() any { return newFileSettings() }, New: newFile,
		},
	}
}
