package main

import (
	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/normalize"
)

func newSchemaCommand(std streams) *cobra.Command {
	cmd := &cobra.Command{Use: "schema", Short: "Print the schemas of what auditrelay writes"}
	cmd.AddCommand(&cobra.Command{
		Use:   "event",
		Short: "Print the JSON Schema of the native JSON format",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			_, err := std.out.Write(append(normalize.EventSchema(), '\n'))
			return err
		},
	})
	return cmd
}
