;; Takes memory in two memories, each within the limit.
;; expect: out-of-memory

(memory $one (export "memory") 2)
(memory $two 2)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow $one (i32.const 8)))))
  (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow $two (i32.const 8)))))
  unreachable)
