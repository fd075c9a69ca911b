;; Takes elements of a table until it is refused, and fails of that.
;; expect: out-of-memory
;; says: it asked for a table of more than 100000 elements

(table $t 1 funcref)
(func $materialize (param $asset i32) (param $length i32) (result i32)
  (loop $more (br_if $more (i32.ne (i32.const -1) (table.grow $t (ref.null func) (i32.const 1000)))))
  unreachable)
