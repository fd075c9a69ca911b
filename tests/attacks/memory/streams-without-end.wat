;; Asks for its standard output again and again, and closes nothing.
;; expect: trapped
;; says: resource table

(import "wasi:cli/stdout@0.2.12" "get-stdout" (func $get_stdout (result i32)))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (call $get_stdout)) (br $again)) unreachable)
