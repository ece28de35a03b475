package job

// File is a file that came with a job. It is kept as long as the job.
type File struct {
	Name        string `json:"name"` // as its sender called it, without any directory
	ContentType string `json:"content_type"`
	Size        int64  `json:"size"`   // bytes
	SHA256      string `json:"sha256"` // of its bytes, in hexadecimal
}
