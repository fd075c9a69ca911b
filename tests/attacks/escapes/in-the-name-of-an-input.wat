;; Asks for an input whose name is the same.
;; expect: failed
;; says: denied

(import "flowstone:asset/inputs@0.1.0" "open" (func $open_input (param i32 i32 i32 i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $open_input (i32.const 4096) (i32.const 51) (i32.const 0) (i32.const 2048))
  (drop (call $refused))
  (i32.const 1024))
(data (i32.const 4096) "\1b[2J\1b]0;owned\07\1b]52;c;ZXZpbA==\07\0d\c2\9b31m\e2\80\aegnp.exe\e2\80\a8\7f\00")
