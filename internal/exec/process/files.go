package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// Placeholders for the job's files in a command's arguments.
const (
	fileArg  = "{file}"  // inside an argument: replaced by the path of the only file
	filesArg = "{files}" // as an argument: replaced by one argument for each file, its path
)

// Variables for the job's files. Without files none is set.
const (
	filesVar      = "MEANWHILE_FILES" // a JSON array of [fileInfo]
	fileVarPrefix = "MEANWHILE_FILE_" // followed by 1, 2, …: the path of that file
)

// fileInfo describes a file to the command.
type fileInfo struct {
	Name        string `json:"name"`
	Path        string `json:"path"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`
}

// expandArgs replaces the placeholders in a command's arguments.
func expandArgs(args []string, files []exec.File) []string {
	var out []string
	for _, arg := range args {
		switch {
		case arg == filesArg:
			for _, f := range files {
				out = append(out, f.Path)
			}
		case len(files) > 0:
			out = append(out, strings.ReplaceAll(arg, fileArg, files[0].Path))
		default:
			out = append(out, arg)
		}
	}
	return out
}

// filesFault returns the fault of a job that does not have the files which the command's
// arguments need; nil if it has them.
func (e *Executor) filesFault(files []exec.File) *job.Fault {
	one := slices.ContainsFunc(e.config.Command, func(arg string) bool { return strings.Contains(arg, fileArg) })
	all := slices.Contains(e.config.Command, filesArg)
	f := &job.Fault{Code: "wrong_files", Class: job.Final}
	switch {
	case one && len(files) != 1:
		f.Message = fmt.Sprintf("the command %s works on one file, and the job came with %d: submit it with one", job.Quote(e.config.Command[0]), len(files))
	case all && len(files) == 0:
		f.Message = fmt.Sprintf("the command %s works on files, and the job came with none: submit it with some", job.Quote(e.config.Command[0]))
	default:
		return nil
	}
	return f
}

// fileEnv returns the variables for a job's files.
func fileEnv(files []exec.File) (env []string) {
	if len(files) == 0 {
		return nil
	}
	facts := make([]fileInfo, len(files))
	for i, f := range files {
		facts[i] = fileInfo{f.Name, f.Path, f.ContentType, f.Size}
		env = append(env, fmt.Sprintf("%s%d=%s", fileVarPrefix, i+1, f.Path))
	}
	var list bytes.Buffer
	enc := json.NewEncoder(&list)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(facts); err != nil {
		panic(fmt.Errorf("process: the facts of files that are no JSON: %w", err))
	}
	return append(env, filesVar+"="+strings.TrimSpace(list.String()))
}
