package process

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	meanwhile "github.com/meanwhile-run/meanwhile/internal/exec"
	"github.com/meanwhile-run/meanwhile/internal/job"
)

// What stands in a command's arguments for the files of a job.
const (
	oneFile  = "{file}"  // inside an argument: the path of the job's one file
	allFiles = "{files}" // an argument: the path of each file, as an argument each
)

// The variables that tell a command of its job's files; none is set where there
// are no files.
const (
	filesVariable = "MEANWHILE_FILES" // a JSON array of [fileFact]
	fileVariable  = "MEANWHILE_FILE_" // with 1, 2, …: the path of that file
)

// fileFact is what a command is told of a file.
type fileFact struct {
	Name        string `json:"name"`
	Path        string `json:"path"`
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`
}

// withPaths are a command's arguments with the paths in their places.
func withPaths(args []string, files []meanwhile.File) []string {
	var out []string
	for _, arg := range args {
		switch {
		case arg == allFiles:
			for _, f := range files {
				out = append(out, f.Path)
			}
		case len(files) > 0:
			out = append(out, strings.ReplaceAll(arg, oneFile, files[0].Path))
		default:
			out = append(out, arg)
		}
	}
	return out
}

// lacksFiles is the fault of a job without the files that the command's arguments
// name; nil when it has them.
func (e *Executor) lacksFiles(files []meanwhile.File) *job.Fault {
	one := slices.ContainsFunc(e.config.Command, func(arg string) bool { return strings.Contains(arg, oneFile) })
	all := slices.Contains(e.config.Command, allFiles)
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

// aboutFiles are the variables for a job's files.
func aboutFiles(files []meanwhile.File) (env []string) {
	if len(files) == 0 {
		return nil
	}
	facts := make([]fileFact, len(files))
	for i, f := range files {
		facts[i] = fileFact{f.Name, f.Path, f.ContentType, f.Size}
		env = append(env, fmt.Sprintf("%s%d=%s", fileVariable, i+1, f.Path))
	}
	var list bytes.Buffer
	enc := json.NewEncoder(&list)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(facts); err != nil {
		panic(fmt.Errorf("process: the facts of files that are no JSON: %w", err))
	}
	return append(env, filesVariable+"="+strings.TrimSpace(list.String()))
}
