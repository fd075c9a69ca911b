;; Calls itself without end.
;; expect: trapped
;; says: call stack exhausted

(func $deeper (call $deeper) (call $deeper))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $deeper)
  (i32.const 1024))
