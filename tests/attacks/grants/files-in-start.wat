;; Opens a directory in a start function, before its imports are there to be called.
;; expect: not-described trapped
;; grants: station

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(func $start (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048)))
(start $start)
(data (i32.const 4096) "station")
