;; Writes one byte at a time until it is told to stop, and then says that it succeeded.
;; expect: output-too-large
;; limits: output=50KB timeout=10s

(import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again
    (call $write (i32.const 0) (i32.const 1) (i32.const 2048))
    (br_if $again (i32.eqz (i32.load8_u (i32.const 2048)))))
  (i32.const 1024))
