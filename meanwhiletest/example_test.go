package meanwhiletest_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/meanwhile-run/meanwhile"
	"github.com/meanwhile-run/meanwhile/meanwhiletest"
)

// A function that the page of the documentation tests.
func makeThumbnail(_ context.Context, t *meanwhile.Task, picture int) (string, error) {
	if t.Attempt == 1 {
		return "", errors.New("the disk is slow today")
	}
	return fmt.Sprintf("/thumbs/%d.webp", picture), nil
}

func TestThumbnail(t *testing.T) {
	s := meanwhiletest.New(t) // in a temporary directory; stops with the test
	thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)

	job, err := thumbs.Submit(t.Context(), 7) // the first call runs the server
	if err != nil {
		t.Fatal(err)
	}
	meanwhiletest.RunUntilIdle(t, s) // with all retries, and without their backoff

	if url, err := thumbs.Result(t.Context(), job.ID); err != nil || url != "/thumbs/7.webp" {
		t.Errorf("the thumbnail is %q, %v", url, err)
	}
}

func TestThumbnailInAnHour(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time jumps to the next event
		s := meanwhiletest.New(t)
		thumbs := meanwhile.Handle(s, "thumbnails", makeThumbnail)

		job, err := thumbs.Submit(t.Context(), 7, meanwhile.Delay(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if url, err := thumbs.Wait(t.Context(), job.ID); err != nil || url != "/thumbs/7.webp" {
			t.Errorf("the thumbnail is %q, %v", url, err)
		}
	})
}
