"""The human's verbs: approve, reject, relock, waive; asked at the controlling terminal."""
