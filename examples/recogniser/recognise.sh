#!/bin/sh
# Reads {"image": "<a picture in base64>"} and writes the text on the picture. How
# far it is goes to standard error, which the queue's executor shows as progress.
# Exit status 65 says that the input is wrong, so that it is not tried again.
set -eu
export OMP_THREAD_LIMIT=1 # a page takes one core; the queue says how many pages at once

refuse() { echo "$1" >&2; exit 65; }

command -v tesseract >/dev/null || { echo "tesseract is not installed: sudo apt-get install tesseract-ocr" >&2; exit 69; }
tesseract --list-langs 2>&1 | grep -qx eng || { echo "tesseract lacks its English data: sudo apt-get install tesseract-ocr-eng" >&2; exit 69; }

echo "progress 5 Reading the picture" >&2
image=$(tr -d '\n' | sed -n 's/.*"image"[[:space:]]*:[[:space:]]*"\([^"]*\)".*/\1/p' | sed 's/\\[nr]//g; s/\\//g')
[ -n "$image" ] || refuse 'the input must be {"image": "..."} with a picture in base64'
printf %s "$image" | base64 -d >/dev/null 2>&1 || refuse 'the "image" of the input is not base64'

echo "progress 20 Recognising the text" >&2
printf %s "$image" | base64 -d | tesseract stdin stdout || {
	status=$?
	[ "$status" -gt 128 ] && exit "$status" # it was ended by a signal
	refuse 'the "image" of the input is not a picture that tesseract can read'
}
