;; Calls itself for ever in tail position, which takes no stack.
;; expect: out-of-fuel
;; limits: fuel=20M

(func $again (return_call $again))
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (call $again)
  (i32.const 1024))
