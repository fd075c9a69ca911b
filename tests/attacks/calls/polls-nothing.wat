;; Waits for nothing at all.
;; expect: trapped
;; says: empty poll list

(import "wasi:io/poll@0.2.12" "poll" (func $poll (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $poll (i32.const 0) (i32.const 0) (i32.const 2048))
  (i32.const 1024))
