;; Fails with a message of 20 MB.
;; expect: trapped
;; says: fuel allocated for hostcalls has been exhausted
;; limits: memory=32MiB

(memory (export "memory") 320)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $fail (i32.const 65536) (i32.const 20000000))
  (i32.const 1024))
