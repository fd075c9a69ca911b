;; Opens a directory where it is asked what its assets are.
;; expect: not-described denied
;; grants: station

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(func $describe (result i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (i32.const 2048))
(data (i32.const 4096) "station")
