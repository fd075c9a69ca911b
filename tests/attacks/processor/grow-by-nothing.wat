;; Grows its memory by nothing, for ever.
;; expect: out-of-fuel
;; limits: fuel=5M timeout=5s

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $again (drop (memory.grow (i32.const 0))) (br $again)) unreachable)
