package main

import (
	"errors"
	"io/fs"

	"github.com/spf13/cobra"

	"github.com/auditrelay/auditrelay/config"
	"github.com/auditrelay/auditrelay/relay"
)

// defaultConfigPath is where the packages put the configuration.
const defaultConfigPath = "/etc/auditrelay/auditrelay.yaml"

// loadConfig reads the file that --config names. Its errors carry the exit code.
func loadConfig(cmd *cobra.Command) (*config.Config, error) {
	path, err := cmd.Flags().GetString("config")
	if err != nil {
		return nil, err
	}
	cfg, err := config.Load(path, relay.Kinds())
	switch {
	case err == nil:
		return cfg, nil
	case errors.Is(err, fs.ErrPermission):
		return nil, &exitError{exitPermission, err}
	default:
		return nil, &exitError{exitConfig, err}
	}
}
