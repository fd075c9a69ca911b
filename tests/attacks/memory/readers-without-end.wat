;; Opens its input again and again, and closes nothing.
;; expect: failed
;; says: at most 256 readers are open at once

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again
    (call $open_input (i32.const 4096) (i32.const 3) (i32.const 0) (i32.const 2048))
    (br_if $again (i32.eqz (call $refused))))
  (i32.const 1024))
(data (i32.const 4096) "raw")
