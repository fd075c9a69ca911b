;; Opens a directory although it was granted none.
;; expect: denied
;; says: granted nothing

(import "flowstone:asset/files@0.1.0" "open" (func $open_directory (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $open_directory (i32.const 4096) (i32.const 7) (i32.const 2048))
  (i32.const 1024))
(data (i32.const 4096) "station")
