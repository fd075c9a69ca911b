;; Writes for ever, whatever it is told.
;; expect: output-too-large
;; says: its output limit of 1048576 bytes
;; limits: fuel=1M

(import "flowstone:asset/output@0.1.0" "write" (func $write (param i32 i32 i32)))
(memory (export "memory") 20)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (call $write (i32.const 0) (i32.const 1048576) (i32.const 2048)) (br $again)) unreachable)
