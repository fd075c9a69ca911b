;; Spends more than its time in single calls of the host, and then returns as if nothing were.
;; expect: timed-out
;; limits: fuel=1T timeout=100ms

(import "flowstone:asset/output@0.1.0" "set-metadata" (func $set_metadata (param i32 i32 i32)))
(memory (export "memory") 256)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (local $n i32)
  (local.set $n (i32.const 200))
  (loop $again
    ;; 200,000 fields of no text.
    (call $set_metadata (i32.const 131072) (i32.const 200000) (i32.const 2048))
    (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
  (i32.const 1024))
