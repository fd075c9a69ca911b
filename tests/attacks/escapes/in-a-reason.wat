;; Skips with the same as its reason.
;; expect: skipped
;; says: owned

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (i32.store (i32.const 1032) (i32.const 1))
  (i32.store (i32.const 1040) (i32.const 4096)) (i32.store (i32.const 1044) (i32.const 51))
  (i32.const 1024))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00")
