;; Reads a path that is the same, in a directory that it was granted.
;; expect: failed
;; says: denied
;; grants: station

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(import "flowstone:asset/files@0.1.0" "[method]directory.read" (func $read_file (param i32 i32 i32 i64 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $open_directory (i32.const 8192) (i32.const 7) (i32.const 2048))
  (call $read_file (i32.load (i32.const 2052)) (i32.const 4096) (i32.const 50) (i64.const 0) (i32.const 1) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00")
(data (i32.const 8192) "station")
