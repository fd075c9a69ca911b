;; Begins with a segment of data outside its memory.
;; expect: not-described trapped
;; says: out of bounds

(data (i32.const 1000000) "outside")
