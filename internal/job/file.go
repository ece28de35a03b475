package job

// File is a file that came with a job. It is kept as long as the job.
type File struct {
	Name        string `json:"name"` // the sender's name of the file, without a directory
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`   // bytes
	SHA256      string `json:"sha256"` // of the content, in hexadecimal
}
