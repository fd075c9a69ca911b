;; Fails with a message of 15 MB.
;; expect: failed
;; says: aaaa

(memory (export "memory") 250)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (memory.fill (i32.const 65536) (i32.const 97) (i32.const 15000000))
  (call $fail (i32.const 65536) (i32.const 15000000))
  (i32.const 1024))
