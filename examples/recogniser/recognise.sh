#!/bin/sh
# Writes the text on a picture, whose path is its argument. How far it is goes to
# standard error, which the queue's executor shows as progress. Exit status 65 says
# that the picture is wrong, so that it is not tried again.
set -eu
export OMP_THREAD_LIMIT=1 # a page takes one core; the queue says how many pages at once
picture=$1

refuse() { echo "$1" >&2; exit 65; }

command -v tesseract >/dev/null || { echo "tesseract is not installed: sudo apt-get install tesseract-ocr" >&2; exit 69; }
tesseract --list-langs 2>&1 | grep -qx eng || { echo "tesseract lacks its English data: sudo apt-get install tesseract-ocr-eng" >&2; exit 69; }

echo "progress 5 Looking at the picture" >&2
# What is no picture tesseract takes for a list of pictures to read: of anyone's.
case $(head -c 4 "$picture" | od -An -tx1 | tr -d ' \n') in
89504e47 | ffd8ff?? | 47494638 | 49492a00 | 4d4d002a | 52494646 | 424d???? | 503[1-6]????) ;; # PNG, JPEG, GIF, TIFF, WebP, BMP, PNM
*) refuse "the file is not a picture" ;;
esac

echo "progress 20 Recognising the text" >&2
tesseract "$picture" stdout || {
	status=$?
	[ "$status" -gt 128 ] && exit "$status" # it was ended by a signal
	refuse "the file is not a picture that tesseract can read"
}
