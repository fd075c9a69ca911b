;; Opens a directory that it was granted again and again, and closes nothing.
;; expect: trapped
;; says: handle
;; grants: station

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048)) (br $again)) unreachable)
(data (i32.const 4096) "station")
