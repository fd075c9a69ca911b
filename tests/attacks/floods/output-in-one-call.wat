;; Writes 15 MB in one call.
;; expect: failed
;; says: more than 1048576

(import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))
(memory (export "memory") 250)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $write (i32.const 65536) (i32.const 15000000) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
