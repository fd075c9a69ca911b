;; Takes memory until it is refused, and fails of that.
;; expect: out-of-memory
;; says: it asked for more than its 16777216 bytes of memory

(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $more (br_if $more (i32.ne (i32.const -1) (memory.grow (i32.const 16)))))
  unreachable)
