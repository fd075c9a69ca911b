;; Fails with the same as its message.
;; expect: failed
;; says: owned

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $fail (i32.const 4096) (i32.const 51))
  (i32.const 1024))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00")
