"""`make demo`: the whole pipeline under the real scheduler, watched from one terminal."""
