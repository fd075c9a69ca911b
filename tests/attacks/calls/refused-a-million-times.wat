;; Opens an input that it did not declare, is denied, and tries again, for ever.
;; expect: timed-out
;; limits: fuel=1T timeout=500ms

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $open_input (i32.const 4096) (i32.const 5) (i32.const 0) (i32.const 2048)) (br $again)) unreachable)
(data (i32.const 4096) "other")
