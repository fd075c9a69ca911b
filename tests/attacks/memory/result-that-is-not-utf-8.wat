;; Fails with a message that is not UTF-8.
;; expect: trapped
;; says: utf-8

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $fail (i32.const 4096) (i32.const 2))
  (i32.const 1024))
(data (i32.const 4096) "\ff\ff")
